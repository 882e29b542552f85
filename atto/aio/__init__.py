"""What atto adds to asyncio."""
