"""What tests that span packages share: real clusters of real processes, in a folder of their own."""
