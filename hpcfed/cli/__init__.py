"""The hpcfed command: main.py has the entry and runs, orbit.py orbits, cluster.py clusters, tables.py what is said."""
