"""The commands of the export stage, one module a group of them; `options` holds what several of them share."""
