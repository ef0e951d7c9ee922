"""What plugin authors import, by kind of plugin. Whatever is not exported here may change without notice."""
