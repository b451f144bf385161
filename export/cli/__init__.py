"""The programs refineloc-export and refineloc-tune."""
