"""`flask run` in this folder finds the application here."""

from titan_dashboard import create_app

app = create_app()
