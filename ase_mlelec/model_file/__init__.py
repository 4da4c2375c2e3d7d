"""What a model file is made of: header, arrays, checks; nothing here needs the class Model. Files are read in
bundle.
"""
