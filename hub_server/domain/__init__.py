"""The hub's rules: plain functions and frozen values, no I/O, nothing imported but the standard library and itself."""
