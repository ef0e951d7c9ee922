"""HTTP as the API server speaks it: connections and credentials, requests, and what answers mean."""
