rockspec_format = "3.0"
package = "lua-ip"
version = "scm-1"
source = {
  url = "git+https://github.com/lua-ip/lua-ip.git",
}
description = {
  summary = "UDP sockets for Lua 5.4 that look blocking and suspend only the calling coroutine",
  detailed = [[
    ip.udp.socket over libuv: receive and send suspend only the calling coroutine, byte_span buffers are reused
    instead of allocated, ip.address values, fibers, timeouts, cancellation, and errors that name what the network said.
  ]],
  license = "MIT",
  labels = { "udp", "network", "async", "coroutine", "libuv" },
}
dependencies = {
  "lua >= 5.4, < 5.5",
}
external_dependencies = {
  LIBUV = { header = "uv.h", library = "uv" },
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LIBUV_INCDIR = "$(LIBUV_INCDIR)",
    LIBUV_LIBDIR = "$(LIBUV_LIBDIR)",
  },
}
test = {
  type = "command",
  command = "sh scripts/test.sh",
}
