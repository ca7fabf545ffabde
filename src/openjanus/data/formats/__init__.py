"""Files of records in the formats people have: each finds its records by number and keeps none of them in memory."""
