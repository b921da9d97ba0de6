"""Trust from findings, and findings of one story joined to one incident. Pure, bounded, order-independent."""
