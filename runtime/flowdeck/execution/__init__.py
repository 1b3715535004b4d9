"""The core and its asyncio driver: everything between a definition and a finished run."""
