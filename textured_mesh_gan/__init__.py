"""Textured 3D meshes learned from collections of photographs."""
