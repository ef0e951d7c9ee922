"""What providers implement and what they are given; the ports behind which cluster and store are."""
