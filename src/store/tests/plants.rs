//! What others put into the folder: links, files of other programs, files in wrong places.
