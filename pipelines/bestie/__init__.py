"""BESTIE: from semantic maps and peaks to instances, with self-refinement (Kim et al., CVPR 2022)."""
