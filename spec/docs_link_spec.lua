-- That links in the documentation lead somewhere, and so do the names of other libraries.
local lfs = require "lfs"
local pages = require "spec.support.pages"

local scan, expect_none = pages.scan, pages.expect_none

-- --- links ---

-- As GitHub makes anchors of headings.
local function anchors(page)
  local found, times = {}, {}
  scan(page, function(line)
    local title = line:match("^#+ (.*)$")
    if title == nil then return end
    title = title:gsub("%[([^%]]*)%]%b()", "%1"):lower()
    local anchor = title:gsub("[^%w%s_\128-\255-]", ""):gsub("%s", "-")
    local before = times[anchor] or 0
    times[anchor] = before + 1
    found[before == 0 and anchor or anchor .. "-" .. before] = true
  end)
  return found
end

local function normal(path)
  path = path:gsub("^%./", "")
  repeat
    local count
    path, count = path:gsub("[^/]+/%.%./", "", 1)
  until count == 0
  return path
end

local function links(page)
  local found = {}
  scan(page, function(line, number)
    for target in line:gsub("`[^`]*`", ""):gmatch("%]%(([^)%s]+)%)") do
      if not target:find("^%a+:") then found[#found + 1] = { target = target, where = page .. ":" .. number } end
    end
  end)
  return found
end

local function destination(page, target)
  local path, anchor = target:match("^([^#]*)#?(.*)$")
  if path == "" then return page, anchor end
  return normal((page:match("^(.*/)") or "") .. path), anchor
end

describe("Links", function()
  it("lead to files and headings that exist", function()
    local wrong = {}
    for _, page in ipairs(pages.all) do
      for _, link in ipairs(links(page)) do
        local path, anchor = destination(page, link.target)
        if lfs.attributes(path) == nil or anchor ~= "" and not anchors(path)[anchor] then
          wrong[#wrong + 1] = ("%s: %s leads nowhere"):format(link.where, link.target)
        end
      end
    end
    expect_none(wrong)
  end)

  it("lead from the README to every page of the documentation", function()
    local linked, missing = { ["README.md"] = true }, {}
    for _, link in ipairs(links("README.md")) do linked[destination("README.md", link.target)] = true end
    for _, page in ipairs(pages.guides) do
      if not linked[page] then missing[#missing + 1] = "the README does not lead to " .. page end
    end
    expect_none(missing)
  end)
end)

-- --- names of other libraries ---

-- Everything that the five interfaces have, by the headings of docs/seeds.md.
local names_elsewhere = {
  ["Emilua, `ip.udp.socket`"] = "new open bind shutdown connect disconnect close cancel assign release receive "
    .. "receive_from send send_to set_option get_option io_control bytes_readable is_open local_address local_port "
    .. "remote_address remote_port file_descriptor operation_aborted ip.message_flag byte_span",
  ["OCaml, `Luv.UDP`"] = "t init loop domain open_ bind ipv6only reuseaddr getsockname Membership set_membership "
    .. "set_source_membership set_multicast_loop set_multicast_ttl set_multicast_interface set_broadcast set_ttl send "
    .. "try_send Recv_flag PARTIAL recv_start allocate recv_stop get_send_queue_size get_send_queue_count "
    .. "Connected.connect disconnect getpeername Connected.send Handle.close Error.t Result.result Sockaddr.t Buffer.t",
  ["Nim, `uv_udp`"] = "UDP loop typ data sizeOfSendQueue countOfSendQueue UDPSend handle udpIpv6Only udpPartial "
    .. "udpReuseAddr SendCb status RecvCb AllocCb nread buf sockaddr flags MemberShip memberLeaveGroup memberJoinGroup "
    .. "init open bindAddr getSockName setMemberShip setMulticastLoop setMulticastTTL setMulticastInterface "
    .. "setBroadcast setTTL send trySend recvStart recvStop",
  ["Jane Street, `Async_udp`"] = "write_buffer default_capacity Config.create Config.capacity init Config.before after "
    .. "stop max_ready Fields names fold iter map make_creator sendto_sync Not_ready sendto bind ifname bind_any "
    .. "recvfrom_loop recvfrom_loop_with_buffer_replacement read_loop read_loop_with_buffer_replacement recvmmsg_loop "
    .. "create_srcs max_count bufs recvmmsg_no_sources_loop bind_to_interface_exn",
  ["Mnet, `UDP`"] = "state error pp_error create recvfrom src port off len trigger sendto dst src_port sendfn "
    .. "Route_not_found Destination_unreachable Packet_too_big Invalid_argument",
}

it("Coming from another library: every name that it has leads somewhere", function()
  local heading, cells, missing = nil, {}, {}
  scan("docs/seeds.md", function(line)
    heading = line:match("^## (.*)$") or heading
    local cell = line:match("^| (.-) | ")
    if cell and heading then cells[heading] = (cells[heading] or "") .. " " .. cell end
  end)
  for title, names in pairs(names_elsewhere) do
    for name in names:gmatch("%S+") do
      local found = false
      for code in (cells[title] or ""):gmatch("`+([^`]+)`") do
        local pattern = "[^%w_.]" .. name:gsub("%p", "%%%0") .. "[^%w_]"
        found = found or (" " .. code .. " "):find(pattern) ~= nil
      end
      if not found then missing[#missing + 1] = ("%s: no row for %s"):format(title, name) end
    end
    cells[title] = nil
  end
  for title in pairs(cells) do missing[#missing + 1] = "names of a library that is not known: " .. title end
  expect_none(missing)
end)
