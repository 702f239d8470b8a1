--- A small name server for specs, on 127.0.0.1:53 of a namespace: it answers in a fiber of the program that asks, so a
--- look-up that blocked the loop would never be answered.

local ip = require "ip"

local name_server = {}

local TYPES = { [1] = "A", [5] = "CNAME", [12] = "PTR", [28] = "AAAA" }
local NUMBERS = { A = 1, CNAME = 5, PTR = 12, AAAA = 28 }
local NXDOMAIN, QUESTION_AT = 3, 13

local function encode(name)
  return (name:gsub("([^.]+)%.?", function(label) return string.pack("s1", label) end)) .. "\0"
end

local function question_of(query)
  local labels, position = {}, QUESTION_AT
  while true do
    local label
    label, position = string.unpack("s1", query, position)
    if label == "" then break end
    labels[#labels + 1] = label
  end
  local kind, _, next_position = string.unpack(">I2I2", query, position)
  return table.concat(labels, "."):lower(), TYPES[kind], query:sub(QUESTION_AT, next_position - 1)
end

local function value_of(kind, text)
  if kind == "A" or kind == "AAAA" then return ip.address.new(text):to_bytes() end
  return encode(text)
end

local function record(name, kind, text)
  return encode(name) .. string.pack(">I2I2I4s2", NUMBERS[kind], 1, 60, value_of(kind, text))
end

-- The records that answer, following a CNAME as a resolving server does.
local function answers_of(zone, name, kind)
  local found = {}
  local entry = zone[name]
  while entry and entry.CNAME do
    found[#found + 1] = record(name, "CNAME", entry.CNAME)
    name = entry.CNAME
    entry = zone[name]
  end
  for _, text in ipairs(entry and entry[kind] or {}) do
    found[#found + 1] = record(name, kind, text)
  end
  return found
end

local function answer(zone, query)
  local name, kind, question = question_of(query)
  local entry = zone[name]
  if entry and entry.silent then return nil, name end
  local found = answers_of(zone, name, kind)
  local code = entry and entry.code or entry == nil and NXDOMAIN or 0
  local header = query:sub(1, 2) .. string.pack(">I2I2I2I2I2", 0x8180 | code, 1, #found, 0, 0)
  return header .. question .. table.concat(found), name
end

--- Serves `zone` (name -> { A = list, AAAA = list, PTR = list, CNAME = name, code = number, silent = true }) in a
--- detached fiber; returns a table that counts the queries for each name, and the socket.
function name_server.start(zone)
  local asked = setmetatable({}, { __index = function() return 0 end })
  local sock = ip.udp.bind("127.0.0.1", 53)
  ip.fiber.spawn(function()
    while true do
      local ok, query, address, port = pcall(sock.receive_string, sock)
      if not ok then return end -- the socket was closed
      local reply, name = answer(zone, query)
      asked[name] = asked[name] + 1
      if reply then sock:send_to(reply, address, port) end
    end
  end):detach()
  return asked, sock
end

return name_server
