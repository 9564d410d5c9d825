"""`make demo`: central and a Remote Worker on one computer, separated as far as one computer allows."""
