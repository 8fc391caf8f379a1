"""The contract: machine description, instruction table, and everything derived from them."""
