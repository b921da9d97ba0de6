"""One exact action, and a yes to it: the approval object, its machine, and the proofs that bind it to people and keys."""
