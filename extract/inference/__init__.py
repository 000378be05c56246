"""Networks in evaluation mode: passes over images, and what they need of a device."""
