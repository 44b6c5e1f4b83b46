"""x"""
VERSION=1
MAX_PRODUCTS=5_000_000
def make_product(seed,row): raise NotImplementedError
