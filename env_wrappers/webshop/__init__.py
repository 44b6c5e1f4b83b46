"""WebShop (Yao et al. 2022, arXiv:2207.01206): an online shop in text, without Java, spaCy or a server.

`shop` is the state machine and `pages` what it shows, `index` searches as Lucene does with the words of `analysis`,
`products` and `catalogue` hold what is for sale (`official` files or made by `generator`), `goals` what is wanted,
`reward` what a purchase is worth, `experts` shop, `data` says how to get the official files, and `env` is the Gymnasium
environment.
"""
