"""Records of privacy: what the law wants on paper, made from the settings and from what a workspace really holds."""
