--- Batches for specs.

local ip = require "ip"

local batches = {}

--- A batch with these texts. Slots: as many as texts when not given.
function batches.filled(list, slots, capacity)
  local batch = ip.udp.batch.new(slots or math.max(#list, 1), capacity)
  for i, text in ipairs(list) do batch:set(i, text) end
  return batch
end

--- The entries of a batch as strings.
function batches.contents(batch)
  local list = {}
  for i = 1, batch.count do list[i] = tostring(batch[i]) end
  return list
end

--- Receives `count` datagrams one by one, as strings.
function batches.receive_texts(sock, count)
  local list = {}
  for i = 1, count do list[i] = sock:receive_string() end
  return list
end

return batches
