# For packages that only Python talks here: nothing is generated in C++, which would take most of the build's time.
# Included before rosidl_generate_interfaces().
list(FILTER AMENT_EXTENSIONS_rosidl_generate_idl_interfaces EXCLUDE REGEX "^[a-z_]+_cpp:")
