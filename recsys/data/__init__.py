"""What comes out of Parquet: examples, the reader and its batches."""
