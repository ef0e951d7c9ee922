"""What users ask for, as transactions on the store."""
