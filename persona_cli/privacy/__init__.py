"""What protects the people in the data: minimisation, erasure, access, pseudonyms, records."""
