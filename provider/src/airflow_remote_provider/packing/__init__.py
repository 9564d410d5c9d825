"""From the directories of Dag bundles to published trees. Runs beside the Dag processor, or in the API server."""
