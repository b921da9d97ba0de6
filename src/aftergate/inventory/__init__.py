"""What the organisation declares about its identities: owners, purpose, windows, egress, tickets, exceptions."""

from aftergate.inventory.book import Inventory
from aftergate.inventory.model import Allowance, DeclaredCredential, Identity, Ticket, Window

__all__ = ["Allowance", "DeclaredCredential", "Identity", "Inventory", "Ticket", "Window"]
