"""The API of workers under `/remote/v1` (docs/protocol.md). :mod:`.app` creates it, :mod:`.routes` lists its routes."""
