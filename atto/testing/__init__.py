"""Shipped to users: the suites that every session store (`store_contract`) and every model adapter
(`model_contract`) passes. Needs the extra `testing`.
"""
