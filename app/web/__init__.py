"""The workspace: pages for a person, of plain ES modules. Every figure they show comes from `app.api`."""
