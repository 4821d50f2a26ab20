"""For tests of programs that use wgpy: a seeded bad network with a wiretap, and engines already joined."""
