"""The sealed log: a signed Merkle tree over the events, proofs from it, and their verification."""
