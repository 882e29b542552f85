"""Shipped to users: the suite that every session store passes."""
