#include "tenants/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "tenants/algorithm.h"
#include "tenants/classes.h"
#include "tenants/source.h"

// --- indexes -------------------------------------------------------------------------------------

int sl_table_index_init(struct sl_table_index *index, size_t count)
{
	uint32_t size = 8;

	while (size < count * 2)
		size *= 2;
	index->slots = calloc(size, sizeof(*index->slots));
	index->mask = size - 1;
	return index->slots ? 0 : -ENOMEM;
}

static uint32_t *find_name(const struct sl_tenants *tenants, struct sl_bytes name)
{
	const struct sl_table_index *index = &tenants->by_name;
	uint32_t at = (uint32_t)sl_hash(name) & index->mask;

	for (; index->slots[at]; at = (at + 1) & index->mask) {
		const struct sl_tenant_entry *entry = &tenants->entries[index->slots[at] - 1];

		if (sl_bytes_equal(sl_bytes(entry->name, entry->name_bytes), name))
			break;
	}
	return &index->slots[at];
}

static uint32_t *find_digest(const struct sl_tenants *tenants, const uint8_t digest[32])
{
	const struct sl_table_index *index = &tenants->by_digest;
	uint32_t at = (uint32_t)sl_hash(sl_bytes(digest, 32)) & index->mask;

	while (index->slots[at] &&
	       !sl_hash_equal(tenants->credentials[index->slots[at] - 1].digest, digest, 32))
		at = (at + 1) & index->mask;
	return &index->slots[at];
}

static uint32_t *find_certificate(const struct sl_tenants *tenants, struct sl_bytes name)
{
	const struct sl_table_index *index = &tenants->by_certificate;
	uint32_t at = (uint32_t)sl_hash(name) & index->mask;

	while (index->slots[at] &&
	       !sl_bytes_equal(sl_bytes_of(tenants->certificates[index->slots[at] - 1].name), name))
		at = (at + 1) & index->mask;
	return &index->slots[at];
}

const struct sl_credential *sl_tenants_credential(const struct sl_tenants *tenants,
						  const uint8_t digest[32], uint64_t wall_ns)
{
	const uint32_t slot = *find_digest(tenants, digest);
	const struct sl_credential *credential = slot ? &tenants->credentials[slot - 1] : NULL;

	return credential && credential->expires_ns > wall_ns ? credential : NULL;
}

const struct sl_certificate *sl_tenants_certificate(const struct sl_tenants *tenants,
						    struct sl_bytes name)
{
	const uint32_t slot = *find_certificate(tenants, name);

	return slot ? &tenants->certificates[slot - 1] : NULL;
}

bool sl_tenants_find(const struct sl_tenants *tenants, struct sl_bytes name, sl_tenant_id *tenant)
{
	const uint32_t slot = *find_name(tenants, name);

	*tenant = slot ? slot - 1 : SL_TENANT_NONE;
	return slot != 0;
}

uint32_t sl_tenants_ranks(const struct sl_tenants *tenants)
{
	return tenants->ranks;
}

struct sl_bytes sl_tenants_entry_name(const struct sl_tenant_entry *entry)
{
	return entry->created ? sl_created_name(entry->name)
			      : sl_bytes(entry->name, entry->name_bytes);
}

bool sl_tenants_has(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	return tenant < tenants->entry_count && tenants->entries[tenant].limits &&
	       sl_tenants_entry_name(&tenants->entries[tenant]).size;
}

bool sl_tenants_known(const struct sl_tenants *tenants, struct sl_bytes name, sl_tenant_id *tenant)
{
	if (sl_tenants_find(tenants, name, tenant))
		return true;
	*tenant = tenants->creates ? sl_created_find(tenants->created, name) : SL_TENANT_NONE;
	return *tenant != SL_TENANT_NONE;
}

void sl_tenants_kept_by(struct sl_tenants *tenants,
			bool (*keeps)(const void *keeper, uint32_t tenant), const void *keeper)
{
	tenants->registry->keeps = keeps;
	tenants->registry->keeper = keeper;
}

void sl_tenants_offer(struct sl_tenants *tenants, struct sl_source_text *text)
{
	struct sl_registry *registry = tenants->registry;

	sl_source_text_put(registry->offered);
	registry->offered = text ? sl_source_text_get(text) : NULL;
}

const struct sl_source_text *sl_tenants_source(const struct sl_tenants *tenants)
{
	return tenants->source;
}

sl_tenant_id sl_tenants_newcomers(const struct sl_tenants *tenants)
{
	return tenants->creates ? tenants->created->newcomers : SL_TENANT_NONE;
}

bool sl_tenants_info(const struct sl_tenants *tenants, sl_tenant_id tenant,
		     struct sl_tenant_info *info)
{
	if (!sl_tenants_has(tenants, tenant))
		return false;

	const struct sl_tenant_entry *entry = &tenants->entries[tenant];

	*info = (struct sl_tenant_info){
		.name = sl_tenants_entry_name(entry),
		.class_name = entry->class_index == UINT16_MAX
				      ? SL_BYTES_NONE
				      : sl_bytes_of(tenants->classes[entry->class_index].name),
		.body_bytes_max = entry->body_bytes_max,
		.rank = entry->class_index == UINT16_MAX
				? 0
				: tenants->classes[entry->class_index].rank,
		.suspended = entry->suspended,
	};
	return true;
}

uint32_t sl_tenants_weight(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	if (tenant >= tenants->entry_count || tenants->entries[tenant].class_index == UINT16_MAX)
		return 1;
	return (uint32_t)tenants->classes[tenants->entries[tenant].class_index].config.priority;
}

uint32_t sl_tenants_count(const struct sl_tenants *tenants)
{
	return tenants->tenant_count;
}

void sl_tenants_destroy(struct sl_tenants *tenants)
{
	if (!tenants)
		return;
	for (uint32_t i = 0; i < tenants->certificate_count; i++)
		free(tenants->certificates[i].name);
	for (uint32_t i = 0; i < tenants->own_limits_count; i++)
		free(tenants->own_limits[i]);
	for (uint32_t i = 0; i < tenants->entry_count; i++)
		if (tenants->entries[i].counted)
			sl_registry_leave(tenants->registry, i);
	sl_source_text_put(tenants->source);
	sl_tenants_destroy_cardinality(tenants);
	sl_identity_rules_fini(&tenants->rules);
	sl_created_put(tenants->created, tenants->registry);
	sl_registry_put(tenants->registry);
	free(tenants->by_name.slots);
	free(tenants->by_digest.slots);
	free(tenants->by_certificate.slots);
	free(tenants->entries);
	free(tenants->credentials);
	free(tenants->certificates);
	free(tenants->classes);
	free(tenants->own_limits);
	free(tenants);
}

// --- building ------------------------------------------------------------------------------------

// The state of one build.
struct builder {
	struct sl_tenants *tenants;
	const struct sl_tenants_file *const *files;
	uint32_t file_count;
	const struct sl_tenants_file *const *class_files; // also where there are no tenants
	uint32_t class_file_count;
	struct sl_errors *errors;
	struct sl_classes classes;
	// Of tenants whose algorithm or volume cannot be had: once is enough.
	bool told, told_volume;
	bool keeps_volumes;
};

static int add_credentials(struct builder *builder, const struct sl_tenant_config *from,
			   sl_tenant_id tenant)
{
	struct sl_tenants *tenants = builder->tenants;
	const struct sl_credential_config *config = from->credentials.items;

	for (size_t i = 0; i < from->credentials.count; i++) {
		struct sl_credential *to = &tenants->credentials[tenants->credential_count];

		to->tenant = tenant;
		to->expires_ns = UINT64_MAX;
		if (sl_tenants_parse_digest(config[i].digest, to->digest)) {
			sl_errors_add(builder->errors, &config[i].where,
				      "a credential of %s is not sha256: and 64 hexadecimal digits",
				      from->name);
			continue;
		}
		if (config[i].expires && sl_tenants_parse_time(config[i].expires, &to->expires_ns))
			sl_errors_add(builder->errors, &config[i].where,
				      "%s is not a time as 2027-01-31T00:00:00Z",
				      config[i].expires);

		uint32_t *slot = find_digest(tenants, to->digest);

		if (*slot) {
			const sl_tenant_id other = tenants->credentials[*slot - 1].tenant;
			const struct sl_tenant_entry *entry = &tenants->entries[other];

			sl_errors_add(builder->errors, &config[i].where,
				      "a credential of %s is one of %.*s already", from->name,
				      (int)entry->name_bytes, (const char *)entry->name);
			continue;
		}
		*slot = ++tenants->credential_count;
	}
	return 0;
}

static int add_certificates(struct builder *builder, const struct sl_tenant_config *from,
			    sl_tenant_id tenant)
{
	struct sl_tenants *tenants = builder->tenants;
	const char *const *names = from->certificates.items;

	for (size_t i = 0; i < from->certificates.count; i++) {
		uint32_t *slot = find_certificate(tenants, sl_bytes_of(names[i]));
		struct sl_certificate *to = &tenants->certificates[tenants->certificate_count];

		if (*slot) {
			sl_errors_add(builder->errors, &from->where,
				      "two tenants have the certificate %s", names[i]);
			continue;
		}
		to->name = strdup(names[i]);
		if (!to->name)
			return -ENOMEM;
		to->tenant = tenant;
		*slot = ++tenants->certificate_count;
	}
	return 0;
}

// A tenant's limits: its class' own struct, unless it overrides something.
static const struct sl_limits *limits_of(struct builder *builder,
					 const struct sl_tenant_config *from,
					 const struct sl_tenant_class *class)
{
	struct sl_tenants *tenants = builder->tenants;

	if (!from->quota && !from->trim)
		return class ? &class->limits : &sl_limits_none;

	struct sl_limits *own = malloc(sizeof(*own));

	if (!own)
		return NULL;
	*own = sl_tenants_limits(class ? &class->config : NULL, from, tenants->observe);
	tenants->own_limits[tenants->own_limits_count++] = own;
	return own;
}

static const struct sl_tenant_class *class_of(struct builder *builder,
					      const struct sl_tenant_config *from)
{
	char what[SL_TENANT_NAME_MAX + 16];

	if (!from->class_name)
		return NULL;
	snprintf(what, sizeof(what), "tenant %s", from->name);
	return sl_classes_find(&builder->classes, from->class_name, what,
			       from->class_where.file ? &from->class_where : &from->where,
			       builder->errors);
}

static int prepare_volume(struct builder *builder, const char *what, const struct sl_where *where,
			  struct sl_quota_pool *pool)
{
	if (!builder->keeps_volumes && !builder->told_volume) {
		builder->told_volume = true;
		sl_errors_add(builder->errors, where,
			      "%s: a volume needs quotas.redis or quotas.volume_file: a restart "
			      "would give it anew",
			      what);
	}
	if (!pool->volume)
		pool->volume = sl_volumes_add(&builder->tenants->registry->volumes, pool->tenant);
	return pool->volume ? 0 : -ENOMEM;
}

// What the limits need beside the pool.
static int prepare_limits(struct builder *builder, const char *what, const struct sl_where *where,
			  const struct sl_limits *limits, struct sl_quota_pool *pool)
{
	const uint8_t algorithm = limits->algorithm;

	// In a fleet, tokens are granted as leases of a bucket or of a window.
	if (algorithm == SL_ALGORITHM_LEAKY && builder->tenants->registry->fleet && !builder->told)
		sl_errors_add(builder->errors, where,
			      "%s: algorithm leaky holds for one instance, not for the fleet that "
			      "quotas.redis makes: each would have the whole limit; use "
			      "token_bucket",
			      what);
	builder->told |= algorithm == SL_ALGORITHM_LEAKY;
	if (algorithm == SL_ALGORITHM_SLIDING_WINDOW && !pool->window && !pool->leases) {
		pool->window = calloc(1, sizeof(*pool->window));
		if (!pool->window)
			return -ENOMEM;
	}
	if (limits->trim.is_set) {
		builder->tenants->trims = true;
		if (!pool->trimmed)
			pool->trimmed = calloc(1, sizeof(*pool->trimmed));
		if (!pool->trimmed)
			return -ENOMEM;
	}
	return limits->volume.is_set ? prepare_volume(builder, what, where, pool) : 0;
}

static int add_tenant(struct builder *builder, const struct sl_tenant_config *from,
		      sl_tenant_id tenant)
{
	struct sl_tenants *tenants = builder->tenants;
	struct sl_tenant_entry *entry = &tenants->entries[tenant];
	const struct sl_tenant_class *class = class_of(builder, from);
	char what[SL_TENANT_NAME_MAX + 16];
	int error;

	if (entry->limits) {
		sl_errors_add(builder->errors, &from->where, "there is another tenant %s",
			      from->name);
		return 0;
	}
	entry->limits = limits_of(builder, from, class);
	if (!entry->limits)
		return -ENOMEM;
	snprintf(what, sizeof(what), "tenant %s", from->name);
	if (from->quota)
		sl_tenants_check_quota(from->quota, entry->limits, what, &from->where,
				       builder->errors);
	entry->suspended = from->suspended;
	entry->class_index = class ? (uint16_t)(class - tenants->classes) : UINT16_MAX;
	entry->body_bytes_max = from->has_body_bytes ? from->body_bytes
				: class              ? class->config.body_bytes
						     : 0;
	*find_name(tenants, sl_bytes(entry->name, entry->name_bytes)) = tenant + 1;
	tenants->tenant_count++;
	sl_registry_use(tenants->registry, tenant);
	entry->counted = true;
	error = prepare_limits(builder, what, &from->where, entry->limits, entry->pool);
	if (error)
		return error;
	sl_authority_introduce(entry->pool, entry->limits);
	error = add_credentials(builder, from, tenant);
	return error ? error : add_certificates(builder, from, tenant);
}

static void refuse_name(struct builder *builder, const struct sl_tenant_config *from)
{
	sl_errors_add(builder->errors, &from->where, "%s is no name of a tenant: %s", from->name,
		      sl_tenant_name_reserved(sl_bytes_of(from->name))
			      ? "the ledger's own account has it"
			      : "1-150 letters, digits and !-_.*'(), not . or ..");
}

// Numbers for all names first: the entries' array is made once, as long as the registry.
static int register_names(struct builder *builder, sl_tenant_id *ids)
{
	struct sl_registry *registry = builder->tenants->registry;
	size_t at = 0;

	for (uint32_t i = 0; i < builder->file_count; i++) {
		const struct sl_tenant_config *from = builder->files[i]->tenants.items;

		for (size_t j = 0; j < builder->files[i]->tenants.count; j++, at++) {
			const struct sl_bytes name = sl_bytes_of(from[j].name);
			int error;

			if (!sl_tenant_name_valid(name)) {
				refuse_name(builder, &from[j]);
				continue;
			}
			error = sl_registry_add(registry, name, &ids[at]);
			if (error == -ENOSPC)
				sl_errors_add(builder->errors, &from[j].where,
					      "more than %u tenants", SL_TENANTS_MAX);
			if (error)
				return error;
			sl_registry_use(registry, ids[at]);
		}
	}
	return 0;
}

static int make_arrays(struct builder *builder)
{
	struct sl_tenants *tenants = builder->tenants;
	size_t tenant_count = 1, credentials = 0, certificates = 0, own = 0;

	for (uint32_t i = 0; i < builder->file_count; i++) {
		const struct sl_tenant_config *from = builder->files[i]->tenants.items;

		tenant_count += builder->files[i]->tenants.count;
		for (size_t j = 0; j < builder->files[i]->tenants.count; j++) {
			credentials += from[j].credentials.count;
			certificates += from[j].certificates.count;
			own += from[j].quota || from[j].trim;
		}
	}
	tenants->credentials = calloc(credentials + 1, sizeof(*tenants->credentials));
	tenants->certificates = calloc(certificates + 1, sizeof(*tenants->certificates));
	tenants->own_limits = calloc(own + 1, sizeof(*tenants->own_limits));
	if (!tenants->credentials || !tenants->certificates || !tenants->own_limits ||
	    sl_table_index_init(&tenants->by_name, tenant_count) ||
	    sl_table_index_init(&tenants->by_digest, credentials) ||
	    sl_table_index_init(&tenants->by_certificate, certificates))
		return -ENOMEM;
	return 0;
}

// An entry for every number there is: also of tenants that are gone, whose requests may be in
// flight.
static int make_entries(struct sl_tenants *tenants)
{
	const struct sl_registry *registry = tenants->registry;

	tenants->entry_count = registry->count;
	tenants->entries = calloc((size_t)registry->count + 1, sizeof(*tenants->entries));
	if (!tenants->entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < registry->count; i++) {
		struct sl_tenant_entry *entry = &tenants->entries[i];

		entry->pool = sl_registry_pool(registry, i);
		entry->name = registry->numbers[i].name.data;
		entry->name_bytes = (uint8_t)registry->numbers[i].name.size;
		entry->class_index = UINT16_MAX;
	}
	return 0;
}

// What tenants are made from later, and the account that serves them until they are.
static int set_template(struct builder *builder, const struct sl_tenants_config *config)
{
	struct sl_tenants *tenants = builder->tenants;
	struct sl_created *created = tenants->created;
	const struct sl_tenant_class *class = NULL;
	struct sl_tenant_entry *newcomers;
	int error;

	tenants->created_idle_ns = config->created_idle_ns;
	if (config->template_name)
		class = sl_classes_find(&builder->classes, config->template_name,
					"tenants.template", &config->template_where,
					builder->errors);
	if (!tenants->creates)
		return 0;
	if (class && class->limits.volume.is_set)
		sl_errors_add(builder->errors, &config->template_where,
			      "tenants.template: class %s has a volume, which tenants that come "
			      "and go would have anew each time",
			      class->name);
	if (class && class->config.cardinality.count > SL_CARDINALITY_RULES_MAX)
		sl_errors_add(builder->errors, &config->template_where,
			      "tenants.template: class %s: cardinality: at most %d limits",
			      class->name, SL_CARDINALITY_RULES_MAX);

	const struct sl_tenant_entry made = {
		.limits = class ? &class->limits : &sl_limits_none,
		.body_bytes_max = class ? class->config.body_bytes : 0,
		.class_index = class ? (uint16_t)(class - tenants->classes) : UINT16_MAX,
		.created = true,
	};

	for (uint32_t i = 0; i < created->seat_count; i++) {
		struct sl_tenant_entry *entry = &tenants->entries[created->seats[i].tenant];
		struct sl_quota_pool *pool = entry->pool;

		*entry = made;
		entry->pool = pool;
		entry->name = &created->seats[i];
		error = prepare_limits(builder, "tenants.template", &config->template_where,
				       entry->limits, pool);
		if (error)
			return error;
	}
	newcomers = &tenants->entries[created->newcomers];
	newcomers->limits = made.limits;
	newcomers->body_bytes_max = made.body_bytes_max;
	newcomers->class_index = made.class_index;
	newcomers->name = ":new"; // no tenant can have that name
	newcomers->name_bytes = 4;
	if (!created->class_name)
		sl_created_set_class(created, tenants);
	error = prepare_limits(builder, "tenants.template", &config->template_where,
			       newcomers->limits, newcomers->pool);
	if (!error)
		sl_authority_introduce(newcomers->pool, newcomers->limits);
	return error;
}

static bool is_create(const struct sl_tenants_config *config)
{
	return config->unknown && strcmp(config->unknown, "create") == 0;
}

static int make_created(struct builder *builder, const struct sl_tenants_config *config,
			const struct sl_tenants *before)
{
	struct sl_tenants *tenants = builder->tenants;
	struct sl_registry *registry = tenants->registry;

	tenants->creates = is_create(config);
	if (before && before->created)
		tenants->created = sl_created_get(before->created);
	else if (tenants->creates)
		tenants->created = sl_created_create(registry, (uint32_t)config->created_max);
	return tenants->creates && !tenants->created ? -ENOMEM : 0;
}

// Names that were registered and are nobody's, as the build failed, go again.
static void leave_names(struct sl_registry *registry, const sl_tenant_id *ids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] != SL_TENANT_NONE)
			sl_registry_leave(registry, ids[i]);
}

static int fill(struct builder *builder, const struct sl_tenants_config *config,
		const struct sl_tenants *before)
{
	struct sl_registry *registry = builder->tenants->registry;
	size_t count = 0, at = 0;
	sl_tenant_id *ids;
	int error;

	for (uint32_t i = 0; i < builder->file_count; i++)
		count += builder->files[i]->tenants.count;
	ids = malloc((count + 1) * sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		ids[i] = SL_TENANT_NONE;
	sl_registry_collect(registry);
	error = make_arrays(builder);
	if (!error)
		error = make_created(builder, config, before);
	if (!error)
		error = register_names(builder, ids);
	if (!error)
		error = make_entries(builder->tenants);
	if (!error)
		error = sl_classes_build(&builder->classes, builder->tenants, builder->class_files,
					 builder->class_file_count, builder->errors);
	if (!error)
		error = set_template(builder, config);
	for (uint32_t i = 0; i < builder->file_count && !error; i++) {
		const struct sl_tenant_config *tenants = builder->files[i]->tenants.items;

		for (size_t j = 0; j < builder->files[i]->tenants.count && !error; j++, at++)
			if (ids[at] != SL_TENANT_NONE)
				error = add_tenant(builder, &tenants[j], ids[at]);
	}
	leave_names(registry, ids, count);
	free(ids);
	return error;
}

// Tenants without a class have the lowest priority there is.
static void rank_classes(struct sl_tenants *tenants)
{
	uint32_t rank_of[SL_PRIORITY_MAX + 1] = {[1] = 1};

	for (uint32_t i = 0; i < tenants->class_count; i++)
		rank_of[tenants->classes[i].config.priority] = 1;
	for (uint32_t priority = 0; priority <= SL_PRIORITY_MAX; priority++) {
		if (rank_of[priority])
			rank_of[priority] = tenants->ranks++;
	}
	for (uint32_t i = 0; i < tenants->class_count; i++)
		tenants->classes[i].rank = rank_of[tenants->classes[i].config.priority];
}

static const char *tenant_name(const void *self, uint32_t index)
{
	const struct sl_tenants_file *file = self;

	return ((const struct sl_tenant_config *)file->tenants.items)[index].name;
}

static const char *nearest_tenant(const struct builder *builder, const char *name)
{
	const char *near = NULL;

	for (uint32_t i = 0; i < builder->file_count && !near; i++)
		near = sl_nearest(name, tenant_name, builder->files[i],
				  (uint32_t)builder->files[i]->tenants.count);
	return near;
}

static sl_tenant_id named_in_config(struct builder *builder, const char *name, const char *key,
				    const struct sl_where *where)
{
	sl_tenant_id tenant;

	if (!sl_tenants_find(builder->tenants, sl_bytes_of(name), &tenant)) {
		const char *near = nearest_tenant(builder, name);

		sl_errors_add(builder->errors, where, "%s: there is no tenant %s%s%s%s", key, name,
			      near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	}
	return tenant;
}

static void resolve_defaults(struct builder *builder, const struct sl_tenants_config *config)
{
	struct sl_tenants *tenants = builder->tenants;

	tenants->unknown = SL_TENANT_NONE;
	tenants->overflow = SL_TENANT_NONE;
	if (config->overflow && strcmp(config->overflow, "refuse") != 0)
		tenants->overflow = named_in_config(builder, config->overflow, "tenants.overflow",
						    &config->overflow_where);
	if (config->unknown && strcmp(config->unknown, "refuse") != 0 && !is_create(config))
		tenants->unknown = named_in_config(builder, config->unknown, "tenants.unknown",
						   &config->unknown_where);
	tenants->fallback = config->fallback
				    ? named_in_config(builder, config->fallback, "tenants.default",
						      &config->fallback_where)
				    : tenants->unknown;
}

struct sl_tenants *sl_tenants_build(const struct sl_tenants_module_config *config,
				    const struct sl_tenants_file *const *files, uint32_t count,
				    const struct sl_tenants *before, struct sl_errors *errors)
{
	// Without any tenant there is one, for all calls, and nothing to tell them apart by.
	static struct sl_tenant_config only = {.name = "default"};
	static const struct sl_tenants_file nobody = {.tenants = {&only, 1}};
	static const struct sl_tenants_file *const nobody_file = &nobody;
	const uint32_t errors_before = sl_errors_count(errors);
	struct sl_tenants *tenants = calloc(1, sizeof(*tenants));
	struct builder builder = {
		tenants, files,
		count,   files,
		count,   errors,
		{0},     false,
		false,   config->quotas.redis.count > 0 || config->quotas.volume_file};
	size_t named = 0;
	int error = tenants ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count; i++)
		named += files[i]->tenants.count;
	// Whose tenants come from elsewhere has none yet: that opens it to nobody.
	named += config->tenants.redis || config->tenants.directory || is_create(&config->tenants);
	if (!named) {
		builder.files = &nobody_file;
		builder.file_count = 1;
	}
	if (!error) {
		tenants->registry = before ? before->registry : sl_registry_create();
		error = tenants->registry ? 0 : -ENOMEM;
		if (!error && !before)
			tenants->registry->fleet = config->quotas.redis.count > 0;
	}
	if (!error) {
		if (before)
			sl_registry_get(tenants->registry);
		tenants->generation = ++tenants->registry->generation;
		tenants->partial = config->quotas.mixed == SL_MIXED_PARTIAL;
		tenants->claimed = (uint8_t)config->tenants.claimed;
		tenants->observe = config->quotas.mode == SL_QUOTA_OBSERVE;
		error = fill(&builder, &config->tenants, before);
		if (!error)
			error = sl_tenants_build_cardinality(tenants, files, count, &config->quotas,
							     before, errors);
		rank_classes(tenants);
	}
	if (!error && named) {
		sl_identity_rules_build(&tenants->rules, &config->tenants, errors);
		resolve_defaults(&builder, &config->tenants);
	} else if (!error) {
		struct sl_identity_rules rules = {0};

		// What is wrong is told, though nothing of it takes effect yet.
		sl_identity_rules_build(&rules, &config->tenants, errors);
		sl_identity_rules_fini(&rules);
		resolve_defaults(&builder, &config->tenants);
		sl_tenants_find(tenants, SL_LITERAL("default"), &tenants->fallback);
		tenants->unknown = tenants->fallback;
	}
	sl_classes_fini(&builder.classes);
	if (error == -ENOMEM)
		sl_errors_add(errors, NULL, "tenants: out of memory");
	if (error || sl_errors_count(errors) != errors_before) {
		sl_tenants_destroy(tenants);
		return NULL;
	}
	return tenants;
}
