"""Reading and writing of products, labelled data and taggings, in files as they come."""
