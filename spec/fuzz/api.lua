--- The public functions of the library, each behind a wrapper that counts its calls. A wrapper ends in a tail
--- call, so the library sees the same caller and the same C stack as without it.

local ip = require "ip"

local api = { calls = {}, functions = {} }

local function counted(name, fn)
  if api.functions[name] then return api.functions[name] end
  local calls = api.calls
  calls[name] = 0
  local function wrapper(...)
    calls[name] = calls[name] + 1
    return fn(...)
  end
  api.functions[name] = wrapper
  return wrapper
end

-- A copy of a module's functions; other fields are left out.
local function functions_of(prefix, module)
  local copy = {}
  for name, value in pairs(module) do
    if type(value) == "function" then copy[name] = counted(prefix .. name, value) end
  end
  return copy
end

-- The tables that the class of an object looks names up in: upvalues of its __index, or __index itself.
local function members_of(object)
  local index = debug.getmetatable(object).__index
  if type(index) == "table" then return index end
  for i = 1, 10 do
    local name, value = debug.getupvalue(index, i)
    if name == nil then return {} end
    if type(value) == "table" then return value end
  end
end

--- Returns the methods of a class, and records its properties for `api.get`.
local properties = {}
local function methods_of(class, object)
  local members, own = members_of(object), {}
  for name, value in pairs(members) do
    if type(value) == "function" then
      own[name] = counted(class .. ":" .. name, value)
    else
      own[#own + 1] = name
      api.calls[class .. "." .. name] = 0
    end
  end
  table.sort(own)
  properties[class] = {}
  for i = 1, #own do properties[class][i] = own[i] end
  return own
end

api.ip = functions_of("ip.", ip)
api.udp = functions_of("ip.udp.", ip.udp)
api.udp.new_socket = counted("ip.udp.socket.new", ip.udp.socket.new)
api.udp.new_batch = counted("ip.udp.batch.new", ip.udp.batch.new)
api.fiber = functions_of("ip.fiber.", ip.fiber)
api.coroutine = functions_of("ip.fiber.coroutine.", ip.fiber.coroutine)
api.loop = {
  step = counted("ip.fiber.loop:step", ip.fiber.loop.step),
  timeout = counted("ip.fiber.loop:timeout", ip.fiber.loop.timeout),
}
api.address = functions_of("ip.address.", ip.address)
api.byte_span = functions_of("ip.byte_span.", ip.byte_span)
api.descriptor = functions_of("ip.file_descriptor.", ip.file_descriptor)
api.socket = methods_of("socket", ip.udp.socket.new())
api.batch = methods_of("batch", ip.udp.batch.new(1))
api.span = methods_of("span", ip.byte_span.new(1))
api.addr = methods_of("address", ip.address.new())
api.handle = methods_of("fiber", ip.fiber.spawn(function() end))
do
  local listener = ip.udp.listen("127.0.0.1", 0)
  local peer = ip.udp.connect("127.0.0.1", listener.local_port)
  peer:try_send("")
  api.listener = methods_of("listener", listener)
  api.session = methods_of("session", listener:try_accept())
  listener:close()
  peer:close()
end
api.queue = methods_of("queue", ip.fiber.queue())
api.condition = methods_of("condition", ip.fiber.condition())
api.semaphore = methods_of("semaphore", ip.fiber.semaphore(1))
api.group = methods_of("group", ip.fiber.group())
api.properties = properties
api.fd = {}
local standard_input = ip.file_descriptor.new(0) -- gives it back at once
standard_input:release()
for _, name in ipairs { "close", "dup", "release" } do
  api.fd[name] = counted("file_descriptor:" .. name, standard_input[name])
end
api.error = { togeneric = counted("error:togeneric", ip.error.EAGAIN.togeneric) }
api.options = require("ip.core").option_names()

--- Reads a property; the reading counts as a call.
function api.get(class, object, name)
  local key = class .. "." .. name
  api.calls[key] = (api.calls[key] or 0) + 1
  return object[name]
end

--- Returns the names of all functions and properties, sorted.
function api.names()
  local names = {}
  for name in pairs(api.calls) do names[#names + 1] = name end
  table.sort(names)
  return names
end

return api
