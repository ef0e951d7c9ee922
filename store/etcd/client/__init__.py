"""etcd's v3 API: requests, what they are made of, and what is answered."""
