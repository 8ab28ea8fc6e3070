"""Files as shops have them: one file a format, products and taxonomies in and out."""
