"""The formats of conversations in files, a module for each program or vendor that writes them."""
