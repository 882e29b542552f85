"""JSON Schemas in the subsets that providers hold a model to.

`dialects` says what each provider takes, `rewriting` writes a schema so, `asking` asks for an answer by a
schema, `nulls` undoes what a provider demands of optional properties.
"""
