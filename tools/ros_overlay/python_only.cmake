# For packages that only Python talks here: their code is generated in C for Python and Fast DDS, and not in C++ and for
# other middleware, which would take most of the build's time. Included before rosidl_generate_interfaces().
list(FILTER AMENT_EXTENSIONS_rosidl_generate_idl_interfaces EXCLUDE REGEX "^(rosidl_generator_cpp|[a-z_]+_cpp|rosidl_typesupport_introspection_c):")
set(STATIC_ROSIDL_TYPESUPPORT_C rosidl_typesupport_fastrtps_c)
