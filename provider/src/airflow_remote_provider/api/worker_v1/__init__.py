"""The API of workers, `/remote/v1` (docs/protocol.md). :mod:`.app` puts it together, :mod:`.routes` lists its routes."""
