--- TFTP packets (RFC 1350, 2347): parses untrusted input, builds answers, and converts netascii.

---@class tftp_message.option
---@field name string in lower case
---@field value string|integer

---@class tftp_message.request
---@field opcode integer RRQ or WRQ
---@field name string
---@field mode string in lower case
---@field options tftp_message.option[] in the order of the request

local message = {
  opcode = { RRQ = 1, WRQ = 2, DATA = 3, ACK = 4, ERROR = 5, OACK = 6 },
  error = { UNDEFINED = 0, NOT_FOUND = 1, ACCESS = 2, FULL = 3, ILLEGAL = 4, EXISTS = 6 },
  HEAD_SIZE = 4, -- of a data packet: opcode and block number
}

local OPCODE = message.opcode

--- Parses a request; nil where it is none.
---@param text string
---@return tftp_message.request?
function message.parse_request(text)
  if #text < 4 or text:byte(-1) ~= 0 then return nil end
  local opcode = string.unpack(">I2", text)
  if opcode ~= OPCODE.RRQ and opcode ~= OPCODE.WRQ then return nil end
  local fields = {}
  for field in text:sub(3):gmatch("([^\0]*)\0") do fields[#fields + 1] = field end
  if #fields < 2 then return nil end
  local request = { opcode = opcode, name = fields[1], mode = fields[2]:lower(), options = {} }
  for i = 3, #fields - 1, 2 do
    request.options[#request.options + 1] = { name = fields[i]:lower(), value = fields[i + 1] }
  end
  return request
end

--- The opcode and the block number or error code of a packet; nil where it is too short.
---@param packet byte_span
function message.parse_head(packet)
  if #packet < message.HEAD_SIZE then return nil end
  local opcode, number = packet:unpack(">I2 I2")
  return opcode, number
end

--- The text of an error packet, without what a terminal would not print.
---@param packet byte_span
function message.error_text(packet)
  return (packet:sub(message.HEAD_SIZE + 1):gsub("\0.*", ""):gsub("[^ -~]", "?"))
end

function message.data_head(number)
  return string.pack(">I2 I2", OPCODE.DATA, number)
end

function message.ack(number)
  return string.pack(">I2 I2", OPCODE.ACK, number)
end

function message.error_packet(code, text)
  return string.pack(">I2 I2 z", OPCODE.ERROR, code, text)
end

--- The packet that says which options hold.
---@param options tftp_message.option[]
function message.option_ack(options)
  local parts = { string.pack(">I2", OPCODE.OACK) }
  for _, option in ipairs(options) do parts[#parts + 1] = string.pack("zz", option.name, tostring(option.value)) end
  return table.concat(parts)
end

-- --- netascii: lines end with CR LF, and a CR by itself is CR NUL (RFC 764) ---

--- Returns a reader of the text that `read` gives in netascii.
---@param read fun(size: integer): string
function message.netascii_reader(read)
  local ready = ""
  return function(size)
    while #ready < size do
      local text = read(size)
      if text == "" then break end
      ready = ready .. text:gsub("[\r\n]", { ["\n"] = "\r\n", ["\r"] = "\r\0" })
    end
    local block = ready:sub(1, size)
    ready = ready:sub(size + 1)
    return block
  end
end

--- Returns a writer that converts netascii for `write`, and a function that writes what is left at the end.
---@param write fun(data: string)
function message.netascii_writer(write)
  local held = "" -- a CR at the end of a block
  return function(data)
    data = held .. data
    held = data:match("\r$") or ""
    data = data:sub(1, #data - #held):gsub("\r[\n\0]", { ["\r\n"] = "\n", ["\r\0"] = "\r" })
    write(data)
  end, function() write(held) end
end

return message
