"""Tables, migrations and the way to the database. Nothing of SQLAlchemy but a `Connection` leaves here."""
