"""What a folder, or a few good pictures, say is normal: tokens compared with those of other pictures."""
