/* lookup.c: a look-up of the system's resolver, which runs in libuv's thread pool.

   The memory of a look-up is malloc'ed and has two owners, one after the other: libuv from the successful
   start until the callback, then a box (userdata) in the frame of the waiting call. Where the call ends
   before the callback comes, the box drops the look-up, and the callback frees it. So neither the look-up nor
   the system's list of results is leaked when a call is cancelled, when memory is short, or when the state
   closes.

   Raises errors of the categories resolver and system, and memory errors. */
#include "resolve/lookup.h"

#include "base/util.h"
#include "binding/class.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "loop/fork.h"
#include "resolve/descriptor_probe.h"
#include "resolve/thread_probe.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>

/* --- memory --- */

void ip_lookup_free(struct ip_lookup *lookup) {
  if (lookup->box != NULL) lookup->box->lookup = NULL;
  uv_freeaddrinfo(lookup->list);
  free(lookup);
}

/* Lets the callback free a pending look-up whose call has ended. A look-up that still waits for a thread is
   cancelled, and its callback comes soon; a look-up that a thread has begun runs to its end (uv_cancel fails
   with EBUSY). */
static void drop(struct ip_lookup *lookup) {
  lookup->box->lookup = NULL;
  lookup->box = NULL;
  lookup->operation->object = NULL;
  lookup->operation = NULL;
  if (!lookup->lost && !ip_fork_happened(lookup->runtime))
    (void)uv_cancel(&lookup->request.any); /* EBUSY: see above */
}

void ip_lookup_cancel(struct ip_operation *operation) {
  drop(operation->object);
}

static int lookup_mt_gc(lua_State *L) {
  const struct ip_lookup_box *box = lua_touserdata(L, 1);
  if (box->lookup == NULL) return 0;
  if (box->lookup->pending)
    drop(box->lookup);
  else
    ip_lookup_free(box->lookup);
  return 0;
}

struct ip_lookup *ip_lookup_push(lua_State *L) {
  struct ip_lookup_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->lookup = NULL;
  ip_class_set(L, IP_CLASS_LOOKUP);
  box->lookup = calloc(1, sizeof *box->lookup);
  if (box->lookup == NULL) ip_error_memory(L);
  box->lookup->box = box;
  box->lookup->runtime = ip_runtime(L);
  box->lookup->lookups = lua_touserdata(L, lua_upvalueindex(2));
  return box->lookup;
}

/* --- errors --- */

static const struct {
  int status, code;
} resolver_codes[] = {
    {UV_EAI_AGAIN, EAI_AGAIN},
    {UV_EAI_BADFLAGS, EAI_BADFLAGS},
    {UV_EAI_FAIL, EAI_FAIL},
    {UV_EAI_FAMILY, EAI_FAMILY},
    {UV_EAI_MEMORY, EAI_MEMORY},
    {UV_EAI_NONAME, EAI_NONAME},
    {UV_EAI_OVERFLOW, EAI_OVERFLOW},
    {UV_EAI_SERVICE, EAI_SERVICE},
    {UV_EAI_SOCKTYPE, EAI_SOCKTYPE},
#ifdef EAI_ADDRFAMILY
    {UV_EAI_ADDRFAMILY, EAI_ADDRFAMILY},
#endif
#ifdef EAI_NODATA
    {UV_EAI_NODATA, EAI_NODATA},
#endif
    /* <netdb.h> has these codes on some systems only, and the resolver never reports them for the hints used
       here */
    {UV_EAI_BADHINTS, EAI_FAIL},
    {UV_EAI_PROTOCOL, EAI_FAIL},
};

/* Returns the code of a status of libuv, and its category. EAI_SYSTEM arrives as the errno value behind
   it. */
static int code_of(int status, enum ip_error_category *category) {
  *category = IP_ERROR_RESOLVER;
  for (size_t i = 0; i < ip_count_of(resolver_codes); i++)
    if (resolver_codes[i].status == status) return resolver_codes[i].code;
  *category = IP_ERROR_SYSTEM;
  return status == UV_EAI_CANCELED ? ECANCELED : -status;
}

/* Completes an operation with the status of its look-up. Calls no Lua. */
static void complete(struct ip_operation *operation, int status) {
  enum ip_error_category category;
  int code = code_of(status, &category);
  ip_operation_complete(operation, category, ip_failure(code));
}

enum { DESCRIPTORS_OF_A_LOOKUP = 4 }; /* three name servers and a file */

/* How many free descriptors prove that a look-up had one: it may have lost them to others, which threads ran
   at the same time, and to ip_descriptor_probe before another one. */
static unsigned count_needed(const struct ip_lookup *lookup) {
  uint32_t beside = lookup->beside + (lookup->lookups->started - lookup->number);
  uint32_t most = ip_thread_most_lookups() - 1;
  if (beside == 0) return 1;
  return 2 + DESCRIPTORS_OF_A_LOOKUP * (beside < most ? beside : most);
}

/* The resolver seldom says that it had no descriptor: to glibc 2.36 a name or a service is unknown when it
   cannot open the file (EAI_NONAME, EAI_SERVICE), and a name server without a socket is EAI_AGAIN. So such an
   error counts only where descriptors are free. Returns `status`, or that of the lack. */
static int look_behind(const struct ip_lookup *lookup, int status) {
  enum ip_error_category category;
  (void)code_of(status, &category);
  if (status == 0 || category != IP_ERROR_RESOLVER) return status;
  int error = ip_descriptor_probe(count_needed(lookup));
  return error != 0 ? -error : status;
}

/* --- results from libuv --- */

/* libuv does not have the request any more, or is never going to answer it. */
static void end_request(struct ip_lookup *lookup) {
  lookup->lookups->running--;
  ip_queue_remove(&lookup->resource.link);
  ip_runtime_handle_closed(lookup->runtime);
}

/* At the end of the state the callback is waited for. */
static void leave_to_callback(struct ip_resource *resource) {
  ip_queue_remove(&resource->link);
}

/* No thread has come along to the child of a fork. What a thread had finished before is delivered by a host's
   loop, and freed then; of the others nobody hears again, and the memory stays with libuv's queues. */
static void lose(struct ip_resource *resource) {
  struct ip_lookup *lookup = ip_container_of(resource, struct ip_lookup, resource);
  struct ip_runtime *runtime = lookup->runtime;
  bool finished = lookup->request.addresses.work_req.work == NULL;
  end_request(lookup);
  lookup->lost = true;
  if (!finished || runtime->loop == &runtime->own_loop) runtime->loop->active_reqs.count--;
  if (lookup->operation != NULL) ip_operation_complete_with(lookup->operation, ECANCELED);
}

static const struct ip_resource_type lookup_resource = {
    .name = "look-up", .close = leave_to_callback, .forked = lose};

/* The common part of both callbacks. Where a look-up was started while the state was closing, Lua does not
   call the box's finalizer any more: then the look-up is freed here. */
static void finish(struct ip_lookup *lookup, int status) {
  struct ip_operation *operation = lookup->operation;
  lookup->pending = false;
  lookup->operation = NULL;
  if (!lookup->lost) end_request(lookup);
  if (operation != NULL) operation->object = NULL;
  bool wanted = operation != NULL && !operation->runtime->closed;
  if (wanted) status = look_behind(lookup, status);
  if (status != 0 || !wanted) ip_lookup_free(lookup);
  if (wanted) complete(operation, status);
}

/* EAI_SYSTEM with an errno value of 0 arrives as a success without a list. */
static int status_of(int status, const struct addrinfo *list) {
  return status == 0 && list == NULL ? UV_EAI_FAIL : status;
}

void ip_lookup_on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
  struct ip_lookup *lookup = ip_container_of(request, struct ip_lookup, request.addresses);
  lookup->list = list;
  finish(lookup, status_of(status, list));
}

void ip_lookup_on_names(uv_getnameinfo_t *request, int status, const char *host, const char *service) {
  (void)host; /* they are read from the request */
  (void)service;
  finish(ip_container_of(request, struct ip_lookup, request.names), status);
}

/* --- answering and suspending --- */

int ip_lookup_answer(lua_State *L, const struct ip_operation_type *type, struct ip_lookup *lookup,
                     int status) {
  struct ip_runtime *runtime = lookup->runtime;
  if (status != 0) {
    enum ip_error_category category;
    int code = code_of(status, &category);
    ip_lookup_free(lookup);
    return ip_operation_raise(L, type, category, ip_failure(code));
  }
  struct ip_result result = {.runtime = runtime, .type = type, .payload = {.lookup = {.box = lookup->box}}};
  if (runtime->budget-- > 0) return type->push_results(L, &result);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, type, IP_NEVER, true);
  operation->payload = result.payload;
  ip_operation_succeed(operation);
  return ip_operation_suspend(L, operation);
}

/* The first look-up of a process makes libuv's threads. Returns 0 or an errno value. */
static int check_threads(struct ip_runtime *runtime) {
  if (runtime->has_threads) return 0;
  int error = ip_thread_probe();
  runtime->has_threads = error == 0;
  return error;
}

struct ip_operation *ip_lookup_acquire(lua_State *L, const struct ip_operation_type *type) {
  struct ip_runtime *runtime = ip_runtime(L);
  int error = ip_descriptor_probe(1);
  if (ip_collect_descriptors(L, error)) error = ip_descriptor_probe(1);
  if (error == 0) error = check_threads(runtime);
  if (error != 0) ip_operation_raise(L, type, IP_ERROR_SYSTEM, ip_failure(error));
  return ip_operation_acquire(L, runtime, type, IP_NEVER, false);
}

int ip_lookup_suspend(lua_State *L, struct ip_lookup *lookup, struct ip_operation *operation, int status) {
  if (status != 0) {
    ip_lookup_free(lookup);
    complete(operation, status);
    return ip_operation_suspend(L, operation);
  }
  lookup->pending = true;
  ip_runtime_handle_opened(lookup->runtime);
  ip_fork_note_threads();
  ip_runtime_add_resource(lookup->runtime, &lookup->resource, &lookup_resource);
  lookup->beside = lookup->lookups->running++;
  lookup->number = ++lookup->lookups->started;
  lookup->operation = operation;
  operation->object = lookup;
  operation->payload.lookup.box =
      lookup->box; /* it stays on the call's stack until the results have been pushed */
  ip_operation_wait_externally(operation);
  return ip_operation_suspend(L, operation);
}

void ip_lookup_open(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__gc", lookup_mt_gc}, {NULL, NULL}};
  static const struct ip_class_definition definition = {
      .name = "ip.udp.lookup",
      .id = IP_CLASS_LOOKUP,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  struct ip_lookups *lookups = lua_newuserdatauv(L, sizeof *lookups, 0);
  *lookups = (struct ip_lookups){.started = 0};
}
