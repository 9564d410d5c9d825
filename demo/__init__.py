"""`make demo`: a central and a Remote Worker on one machine, as far apart as one machine allows."""
