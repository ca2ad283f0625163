from virnucpro.texts import Texts as Texts
